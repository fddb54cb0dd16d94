"""Typed configuration: one schema file per component, composed once into plain objects."""
