"""Trainings on real images; each writes a record, from which the tables people read are made."""
