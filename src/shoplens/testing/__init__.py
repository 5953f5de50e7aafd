"""For the tests of users: hostile pictures, and the contract of stores."""
