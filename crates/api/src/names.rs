//! Names of enumerated values, for people and for JSON.

use serde::Serializer;

/// An enumerated value with a stable `snake_case` name.
pub trait Named: TryFrom<i32> + Copy {
    /// The name, as in the JSON output.
    fn name(self) -> &'static str;
}

/// Serialises the number of an enumerated value as its name; "unknown" when a newer member sent
/// a value this CLI does not know.
pub(crate) fn by_name<E: Named, S: Serializer>(
    value: &i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(E::try_from(*value).map_or("unknown", E::name))
}

/// Serialises the SPI of a Child SA as eight hexadecimal digits.
pub(crate) fn spi<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:08x}"))
}

/// Serialises the SPI of an IKE SA as sixteen hexadecimal digits.
pub(crate) fn ike_spi<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:016x}"))
}
