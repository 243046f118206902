"""Operations x kernel sets: which are computed exactly, and how near the others come. Data only."""

EXACT = "exact"

# operation -> kernel set -> EXACT, or the measured part of the elements that are equal (the others differ by one step).
TABLE: dict[str, dict[str, str | float]] = {}
