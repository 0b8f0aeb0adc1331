"""An edge under attack: who plays which part, what is thrown at it, and what it must not cost.

`python -m attack` (scripts/attack) runs it; docs/attacks.md says what it shows.
"""
