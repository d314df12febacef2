"""The verb import: the files of other managers of programs become a context of Commands."""
