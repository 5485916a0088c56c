"""Which methods fit a card, how large a batch each takes, and what to change if none does."""
