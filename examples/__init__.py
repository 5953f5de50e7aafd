"""Programs to try Shoplens with. They are not part of the installed package."""
