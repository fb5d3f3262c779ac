/* The weir program: everything is in cli/ and the floors below. */
#include "base/os.h"
#include "orchestrator/cli.h"

int main(int argc, char **argv)
{
    os_hold_stdio();
    fault_from_env();
    return cli_main(argc, argv);
}
