"""Detectors' and libraries' files into the same networks of this library, and the maps of both on the same images."""
