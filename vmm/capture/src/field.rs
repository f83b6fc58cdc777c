//! A value that several places of a text may state.

/// A value with the line that states it. Two statements that differ make it unknown, whatever comes later.
#[derive(Debug, Clone)]
pub(crate) struct Field<T> {
    value: Option<T>,
    line: usize,
    conflict: Option<usize>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self { value: None, line: 0, conflict: None }
    }
}

impl<T: PartialEq> Field<T> {
    /// States it in `line`. An earlier statement that says the same stays.
    pub(crate) fn put(&mut self, value: T, line: usize) {
        match &self.value {
            None => (self.value, self.line) = (Some(value), line),
            Some(before) if *before == value => {}
            Some(_) => self.conflict = self.conflict.or(Some(line)),
        }
    }

    /// The value, if it is stated and not contradicted.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.conflict.is_none())
    }

    /// The two lines that state different values.
    pub(crate) fn conflict(&self) -> Option<(usize, usize)> {
        Some((self.line, self.conflict?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_lines_state_differently_stays_unknown() {
        let mut field = Field::default();
        assert_eq!(field.get(), None);
        field.put(1, 10);
        field.put(1, 20);
        assert_eq!((field.get(), field.conflict()), (Some(&1), None));
        field.put(2, 30);
        field.put(1, 40);
        assert_eq!((field.get(), field.conflict()), (None, Some((10, 30))));
    }
}
