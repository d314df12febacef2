"""The Run service: runs when DrinkCoffee has ended, and then it is the turn of Stand again."""
