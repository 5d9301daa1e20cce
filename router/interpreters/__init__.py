"""Where dtabs come from, and what is done to bound names before they are used."""
