//! Questions that the running agent answers at once.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::control::{self, Request};
use crate::instance::Instance;

/// The agent's answer; `None` when it does not know the question.
///
/// # Errors
/// When no agent runs, or it does not answer in time.
pub(super) fn agent<T: DeserializeOwned>(
    instance: &Instance,
    request: Request,
) -> Result<Option<T>> {
    let socket = instance.control_socket();
    let answers = control::ask(instance, request).with_context(|| {
        format!(
            "cannot ask the agent at {}: one has to run (beeline run), and it answers root and the \
             group that control.group names",
            socket.display()
        )
    })?;
    Ok(control::soon(answers)?)
}
