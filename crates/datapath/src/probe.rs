//! What this kernel and host can do: facts only.
