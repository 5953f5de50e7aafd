"""From tensors to predictions: session, classifier, slot, batcher and the engines that join them."""
