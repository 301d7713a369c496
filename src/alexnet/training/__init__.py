"""How a network learns: tasks, the loop, schedules, the update rule and what a run writes meanwhile.

Nothing here knows how images are decoded or how a trained network predicts.
"""
