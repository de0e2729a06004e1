"""The nouns of edgecv: frozen dataclasses and protocols on the standard library and numpy."""
