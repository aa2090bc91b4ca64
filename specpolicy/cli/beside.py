"""Names of the files beside a policy's weights. Imports nothing, for every verb to name them."""

# Files that other verbs put beside a policy's weights; they are of no use for other weights.
BESIDE = (
    "observations.safetensors",
    "speculation.safetensors",
    "speculation.json",
    "calibrate.yaml",
    "drafters.safetensors",
    "drafters.json",
    "train_drafter.yaml",
    "drafts.json",
    "prediction.safetensors",
    "prediction.json",
)
