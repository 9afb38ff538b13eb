"""The facts of one case: of the grid, of a layer, of a whole network, of what only claims need."""
