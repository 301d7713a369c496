"""placeholder"""
def across(*a): return None
