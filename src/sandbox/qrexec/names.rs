//! Names that the daemon cleans before it asks the policy.

/// A service and its argument with every odd byte replaced by `_`; none where there is no service name.
#[must_use]
pub fn sanitized_service(bytes: &[u8]) -> Option<String> {
    match bytes.first() {
        None | Some(b'+') => None,
        Some(_) => Some(sanitized(bytes, b"+")),
    }
}

/// A target, cut to what fits and with every odd byte replaced by `_`.
#[must_use]
pub fn sanitized_target(bytes: &[u8]) -> String {
    sanitized(&bytes[..bytes.len().min(super::MAX_TARGET)], b"@:")
}

fn sanitized(bytes: &[u8], also: &[u8]) -> String {
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) || also.contains(&byte);
    bytes.iter().map(|byte| if clean(*byte) { char::from(*byte) } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        assert_eq!(sanitized_service(b"a.B_-9+x/\xe9 $").as_deref(), Some("a.B_-9+x____"));
        assert_eq!(sanitized_service(b""), None);
        assert_eq!(sanitized_service(b"+x"), None);
        assert_eq!(sanitized_target(b"@dispvm:a b+"), "@dispvm:a_b_");
        assert_eq!(sanitized_target(&[b'x'; 100]).len(), 63);
    }
}
