"""Tables of saved runs: of the grid, of layers, of networks, of break-even sparsities, as text and as files."""
