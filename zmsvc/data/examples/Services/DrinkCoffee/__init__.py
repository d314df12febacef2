"""The DrinkCoffee service: runs when Walk has ended."""
