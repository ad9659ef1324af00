//! What is wrong, as the status tells it. Only `core` uses this.

/// What is wrong, by where it comes from: each part is replaced when its source speaks again.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) input: Vec<String>,
    pub(super) settings: Vec<String>,
    pub(super) policy: Vec<String>,
    pub(super) networking: Vec<String>,
    pub(super) layouts: Option<String>,
    pub(super) apply: Option<String>,
}

impl Problems {
    pub(super) fn all(&self) -> Vec<String> {
        let Self {
            input,
            settings,
            policy,
            networking,
            layouts,
            apply,
        } = self;
        input
            .iter()
            .chain(settings)
            .chain(policy)
            .chain(networking)
            .chain(layouts)
            .chain(apply)
            .cloned()
            .collect()
    }
}
