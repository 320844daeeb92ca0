"""One file a layer kind: from the gradient at a layer's output to its parameters' gradients, image by image."""
