/* The commands of the program: each gets its own word as argv[0] and returns
 * the exit status: 0, 1 for a result that is not as it should be, 2 for a
 * command line that makes no sense. */
#ifndef AG_EXAMPLES_COMMANDS_H
#define AG_EXAMPLES_COMMANDS_H

int ag_cmd_tasks(int argc, char **argv);
int ag_cmd_train(int argc, char **argv);
int ag_cmd_explain(int argc, char **argv);
int ag_cmd_check(int argc, char **argv);
int ag_cmd_vcurve(int argc, char **argv);

#endif
