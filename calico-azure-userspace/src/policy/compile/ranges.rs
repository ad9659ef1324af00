//! Sets of ports as sorted, disjoint, inclusive ranges.

/// One range, both ends in it.
pub type Range = (u16, u16);

/// Ports, or ICMP `type << 8 | code`.
pub type Ranges = Box<[Range]>;

/// Every port.
pub const ALL: &[Range] = &[(0, u16::MAX)];

/// All of them, sorted out; those that end before they begin are none.
#[must_use]
pub fn union(mut ranges: Vec<Range>) -> Ranges {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(previous) if u32::from(first) <= u32::from(previous.1) + 1 => {
                previous.1 = previous.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

/// What is in the first only; both sorted and disjoint.
#[must_use]
pub fn minus(from: &[Range], what: &[Range]) -> Ranges {
    let mut left = Vec::new();
    for (first, last) in from {
        let mut next = u32::from(*first);
        for (start, end) in what.iter().filter(|(start, end)| start <= last && end >= first) {
            push(&mut left, next, u32::from(*start));
            next = u32::from(*end) + 1;
        }
        push(&mut left, next, u32::from(*last) + 1);
    }
    left.into()
}

/// What is in both; both sorted and disjoint.
#[must_use]
pub fn common(a: &[Range], b: &[Range]) -> Ranges {
    minus(a, &minus(ALL, b))
}

/// Whether the port is in one of them; sorted and disjoint.
#[must_use]
pub fn contains(ranges: &[Range], port: u16) -> bool {
    let place = ranges.partition_point(|(_, last)| *last < port);
    ranges.get(place).is_some_and(|(first, _)| *first <= port)
}

/// Appends the range from `start` to before `end`, if there is any.
fn push(ranges: &mut Vec<Range>, start: u32, end: u32) {
    if start < end
        && let (Ok(first), Ok(last)) = (u16::try_from(start), u16::try_from(end - 1))
    {
        ranges.push((first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_empty_ones_dropped() {
        let merged = union(vec![
            (80, 90),
            (5, 4),
            (91, 100),
            (1, 1),
            (95, 97),
            (u16::MAX, u16::MAX),
        ]);
        assert_eq!(*merged, [(1, 1), (80, 100), (u16::MAX, u16::MAX)]);
    }

    #[test]
    fn subtraction_at_the_edges() {
        assert_eq!(*minus(ALL, &[(0, 0), (u16::MAX, u16::MAX)]), [(1, u16::MAX - 1)]);
        assert_eq!(*minus(ALL, ALL), []);
        assert_eq!(*minus(&[(10, 20), (30, 40)], &[(15, 35)]), [(10, 14), (36, 40)]);
        assert_eq!(*minus(&[(10, 20)], &[(1, 9), (21, 22)]), [(10, 20)]);
    }

    #[test]
    fn what_two_have_in_common_and_what_they_contain() {
        let both = common(&[(0, 20), (30, 40)], &[(20, 30), (40, u16::MAX)]);
        assert_eq!(*both, [(20, 20), (30, 30), (40, 40)]);
        for (port, expected) in [(0, false), (20, true), (21, false), (40, true), (41, false)] {
            assert_eq!(contains(&both, port), expected, "{port}");
        }
        assert!(contains(ALL, 0) && contains(ALL, u16::MAX) && !contains(&[], 0));
    }
}
