"""Files: written whole, known by digest, read with one clear line where they are wrong."""
