"""What the tests share: tiny data and models, golden facts, where files lie."""
