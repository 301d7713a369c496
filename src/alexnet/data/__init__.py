"""Images and their labels: sources, hardened decoding, stores, statistics, augmentation and feeding."""
