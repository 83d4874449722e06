"""Devices of one machine, and several machines."""
