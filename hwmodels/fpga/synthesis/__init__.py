"""Generated units through Yosys: counts of cells, and the table that they are kept in."""
