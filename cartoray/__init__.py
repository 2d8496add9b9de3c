"""Cartography's graph through Kafka and Ray."""
