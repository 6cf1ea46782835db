"""Files and folders that are written whole, that one process holds, or that are kept between commands."""
