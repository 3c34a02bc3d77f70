"""What tests share: plain references, recipes, synthetic results, stand-ins."""
