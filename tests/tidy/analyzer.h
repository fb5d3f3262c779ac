/* analyzer.h - tells clang's analyzer what it cannot see: that an error's code is not OK.
 *
 * lint.sh includes it in front of every source.  Functions return err_set(...), which lives in another file, so the
 * analyzer would follow paths on which a failure answers OK and its outputs were never written.
 */
#include "base/err.h"

#define err_set(err, code, ...) (err_set((err), (code), __VA_ARGS__), (code))
#define err_sys(err, ...) (err_sys((err), __VA_ARGS__), ERR_IO)
#define err_prefix(err, ...) (err_prefix((err), __VA_ARGS__), ERR_IO)
