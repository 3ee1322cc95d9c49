"""The page that shows a model, as plain ES modules: one front end for exported pages and for servers."""
