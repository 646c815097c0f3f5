"""The sweep as MLflow shows it, and the registry where its adapters are found again."""
