# One library and one test program per folder of src/.
#
#   penstock_module(text DEPS penstock_base PkgConfig::utf8proc)
#
# makes the static library penstock_text from every *.cc below the current folder and, from every *_test.cc,
# the GoogleTest program text_test, registered with CTest under the label "unit".
function(penstock_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;TEST_DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  add_library(penstock_${name} STATIC ${sources})
  target_include_directories(penstock_${name} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(penstock_${name} PUBLIC ${ARG_DEPS} PRIVATE penstock_warnings)

  if(tests AND PENSTOCK_BUILD_TESTS)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE penstock_${name} ${ARG_TEST_DEPS} penstock_warnings GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE PENSTOCK_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    add_test(NAME ${name}_test COMMAND ${name}_test)
    set_tests_properties(${name}_test PROPERTIES LABELS unit TIMEOUT 600)
  endif()
endfunction()
