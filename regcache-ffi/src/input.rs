//! Structures that begin with their size, so that old programs work with new libraries and new ones
//! with old, where they can.

use std::ptr;

use crate::failure::Failure;

/// More than any structure will ever have: what claims to be larger was not initialised.
const LARGEST: usize = 4096;

/// A structure that begins with a `size_t` that says how large it is. Zero means the default in
/// every other field.
///
/// # Safety
///
/// It is `repr(C)`, begins with the size, and any bytes are a value of it.
pub(crate) unsafe trait Sized: Copy {
    /// Whether all reserved fields are zero.
    fn reserved_is_zero(&self) -> bool;
}

/// Reads a caller's structure. What the caller does not have is zero; what it has and this library
/// does not know must be.
///
/// # Safety
///
/// `from` is NULL or points to as many readable bytes as its first field says, or is too small or
/// too large to be what it should.
pub(crate) unsafe fn read<T: Sized>(from: *const T, name: &'static str) -> Result<T, Failure> {
    let own = size_of::<T>();
    if from.is_null() {
        return Err(Failure::null(name));
    }
    if !from.is_aligned() {
        return Err(Failure::invalid(format!("{name} is not aligned")));
    }
    // SAFETY: a structure of this kind begins with its size.
    let size = unsafe { from.cast::<usize>().read() };
    if !(size_of::<usize>()..=LARGEST).contains(&size) {
        return Err(Failure::invalid(format!(
            "{name}->type_size is {size}: initialise the structure with its macro"
        )));
    }
    // SAFETY: any bytes are a value, so zeros are.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: the caller has `size` bytes, and `value` has `own`.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), size.min(own));
    }
    // SAFETY: the caller has `size` bytes.
    let tail = (own..size).all(|at| unsafe { from.cast::<u8>().add(at).read() } == 0);
    if !tail || !value.reserved_is_zero() {
        return Err(Failure::invalid(format!(
            "{name} has a field set that this version of the library does not know"
        )));
    }
    Ok(value)
}
