"""How one update is computed: single process here, distributed engines behind the same protocol."""
