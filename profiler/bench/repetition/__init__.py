"""Steps of a deep model written from those of shallow ones, where that is proven to be the same."""
