"""What the library costs, against yardsticks taken in the same run. See README.md here."""
