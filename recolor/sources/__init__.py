"""Where photos come from: listings, downloads, archives. May import core and images."""
