"""Two saved runs case by case: what is faster, slower, more accurate, and how sure that is."""
