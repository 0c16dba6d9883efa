"""Other people's programs that DWCP is measured and checked beside, built from pinned modules."""
