"""Where photos come from: listings and archives. May import core and images."""
