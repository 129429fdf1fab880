"""The models as a CustomResourceDefinition."""
