"""How the searched parameters act on the loss, alone and on each other: tables only."""
