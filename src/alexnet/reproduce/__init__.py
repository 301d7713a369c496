"""The paper's claims, checked: what is measured of a network's predictions, kernels and features, and how surely."""
