//! Lengths of vectors in integers, so that every machine gets the same result.

/// The length, rounded up.
pub(crate) fn length((x, y): (i64, i64)) -> i64 {
    let square = x.unsigned_abs().saturating_pow(2).saturating_add(y.unsigned_abs().saturating_pow(2));
    let root = square.isqrt();
    let up = u64::from(root.saturating_mul(root) < square);
    i64::try_from(root + up).unwrap_or(i64::MAX)
}

/// The vector in the same direction with at most this length. Coordinates are rounded towards zero.
pub(crate) fn limit((x, y): (i32, i32), most: i32) -> (i32, i32) {
    let length = length((x.into(), y.into()));
    if length <= i64::from(most) {
        return (x, y);
    }
    scale((x.into(), y.into()), most, length)
}

/// The vector of this length in the direction of another one, whose length is not zero.
pub(crate) fn scale((x, y): (i64, i64), to: i32, length: i64) -> (i32, i32) {
    let part = |v: i64| {
        let part = i128::from(v) * i128::from(to) / i128::from(length.max(1));
        i32::try_from(part).unwrap_or(if part < 0 { i32::MIN } else { i32::MAX })
    };
    (part(x), part(y))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_rounded_up() {
        assert_eq!([length((3, 4)), length((0, 0)), length((1, 1)), length((-2, 0))], [5, 0, 2, 2]);
    }

    proptest! {
        #[test]
        fn limited_vector_is_short_and_keeps_its_direction(x: i32, y: i32, most in 1..100_000) {
            let (a, b) = limit((x, y), most);
            let square = |v: i32| i128::from(v) * i128::from(v);
            let (inside, before) = (square(a) + square(b), square(x) + square(y));
            prop_assert!(inside <= square(most));
            prop_assert!(before > square(most) || (a, b) == (x, y));
            prop_assert!(a == 0 || a.signum() == x.signum());
            // The cross product is small: both coordinates are rounded by less than one.
            let cross = (i128::from(a) * i128::from(y) - i128::from(b) * i128::from(x)).abs();
            prop_assert!(cross <= i128::from(x.unsigned_abs()) + i128::from(y.unsigned_abs()));
        }
    }
}
