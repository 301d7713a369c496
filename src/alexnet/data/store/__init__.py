"""Work on prepared images: making a store, verifying and describing it.

Reading one is `readers.store`.
"""
